from modelhub.serving import ModelhubModelService, ModelServer
import argparse

def main():
    parser = argparse.ArgumentParser(description="Model Service")
    parser.add_argument("--model_name", type=str, required=True)
    parser.add_argument("--run", type=str, required=True)
    parser.add_argument("--model_type", type=str, default="pyfunc")
    args = parser.parse_args()

    model_service = ModelhubModelService(
        name=args.model_name,
        run_uri=args.run,
        model_type=args.model_type
    )
    model_service.load()
    ModelServer().start([model_service])

if __name__ == "__main__":
    main()
