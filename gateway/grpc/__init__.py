"""The gRPC front: translates messages, decides nothing. Imported when ports are opened."""
