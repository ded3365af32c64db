"""The gRPC front: translates messages, decides nothing. Imported only with `server.grpc_port`."""
