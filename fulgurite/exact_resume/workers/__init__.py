"""What DataLoader workers change in their copies of data sets, transforms and collate functions."""
