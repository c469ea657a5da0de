"""State that user code keeps outside of weights: attributes, frozen parameters, effects of epoch hooks."""
