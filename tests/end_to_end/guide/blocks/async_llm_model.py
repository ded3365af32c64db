import mlflow.pyfunc
import pandas as pd
from your_async_service import AsyncLLMService
from your_utils import AsyncExecutor

class AsyncLLMModel(mlflow.pyfunc.PythonModel):
    def __init__(self):
        self.llm_service = None

    def load_context(self, context):
        self.llm_service = AsyncLLMService()

    def predict(self, context, model_input: pd.DataFrame) -> pd.DataFrame:
        results = []

        for _, row in model_input.iterrows():
            # Convert async call to sync using AsyncExecutor
            result = AsyncExecutor.run_async(
                self.llm_service.generate,
                prompt=row['prompt'],
                timeout=30.0
            )
            results.append(result)

        return pd.DataFrame({"predictions": results})
