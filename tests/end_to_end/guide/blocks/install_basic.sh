# Basic serving capabilities
pip install autonomize-model-sdk
