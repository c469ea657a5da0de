"""What is learned from: one LightningDataModule a family of data sets."""
