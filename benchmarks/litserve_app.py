"""The benchmark's models in LitServe, batched; runs in LitServe's own environment."""

import sys

import litserve
import numpy as np

import workloads


class Api(litserve.LitAPI):
    def setup(self, device):
        self.kind = sys.argv[1]
        self.rows = workloads.load(self.kind, sys.argv[2])

    def decode_request(self, request):
        return request["input"]

    def predict(self, batch):
        return self.rows(np.asarray(batch, "float32") if self.kind == "mlp" else list(batch))

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    workers = int(sys.argv[4])
    api = Api(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(port=int(sys.argv[3]), host="127.0.0.1", generate_client_file=False, log_level="error")
