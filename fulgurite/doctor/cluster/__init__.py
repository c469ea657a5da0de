"""Facts about the ranks and the network between them, collected before and after a process group exists."""
