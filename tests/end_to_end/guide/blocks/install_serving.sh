# With serving extras (includes FastAPI, uvicorn)
pip install "autonomize-model-sdk[serving]"
