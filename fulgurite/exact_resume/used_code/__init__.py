"""What the code of a run uses: functions, classes and modules of the user, and what they keep."""
