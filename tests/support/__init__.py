"""What tests share: processes of the gateway, of MLflow and of scripts, fronts without processes, clients, models."""
