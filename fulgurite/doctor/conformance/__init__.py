"""Calls of torch.distributed with known results, and injected faults."""
