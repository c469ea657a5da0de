"""Many processes, one run: who started them, how they meet, and the group they form."""
