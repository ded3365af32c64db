"""Generated from open_inference.proto by `make proto`: edit that file, not these."""
