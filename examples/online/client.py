"""Step 3: ask the server. `python client.py http://127.0.0.1:8080`; needs httpx."""

import sys

import httpx

FLOWERS = [
    {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2},
    {"sepal_length": 6.6, "sepal_width": 3.0, "petal_length": 4.4, "petal_width": 1.4},
    {"sepal_length": 5.9, "sepal_width": 3.0, "petal_length": 5.1, "petal_width": 1.8},
]


def main(url: str) -> None:
    # connections are tried again; a request that was cut off is not, for it may be in the log already
    with httpx.Client(base_url=url, timeout=10, transport=httpx.HTTPTransport(retries=3)) as client:
        print(client.get("/ready").json())  # {'ready': True}
        answers = client.post("/predict", json=FLOWERS).raise_for_status().json()
        print([answer["y_pred"] for answer in answers])  # ['setosa', 'versicolor', 'virginica']

        refused = client.post("/predict", json=[FLOWERS[0], {**FLOWERS[1], "petal_width": None}])
        print(refused.status_code, refused.json()["records"][0]["row"])  # 422 1


if __name__ == "__main__":
    main(sys.argv[1])
