"""Runs in NannyML's own environment: its bundled data and its estimates, written to a folder. Imports no headrace."""

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

CHUNK = 5000
SETS = {
    "car loan": ("synthetic_car_loan_dataset", "classification_binary", "repaid", "y_pred", "y_pred_proba"),
    "census": (
        "us_census_ma_employment_data", "classification_binary", "employed", "prediction", "predicted_probability",
    ),
    "multiclass": ("synthetic_multiclass_classification_dataset", "classification_multiclass", "y_true", "y_pred", ""),
    "car price": ("synthetic_car_price_dataset", "regression", "y_true", "y_pred", ""),
}  # fmt: skip
NOT_FEATURES = {"id", "timestamp", "year"}


def main(folder: Path, rows: int) -> None:
    import nannyml
    from nannyml import datasets

    for name, (loader, problem, truth, answer, score) in SETS.items():
        reference, analysis, target = getattr(datasets, f"load_{loader}")()
        reference, analysis = reference.head(rows), analysis.merge(target, on="id").head(rows)
        scores = [column for column in reference.columns if column.startswith("y_pred_proba_")]
        classes = [column.removeprefix("y_pred_proba_") for column in scores]
        taken = {truth, answer, score, *scores} | NOT_FEATURES
        features = [column for column in reference.columns if column not in taken]
        if problem == "regression":
            made = nannyml.DLE(
                y_true=truth, y_pred=answer, feature_column_names=features, metrics=["mae"], chunk_size=CHUNK
            )
        else:
            chances = dict(zip(classes, scores, strict=True)) if scores else score
            made = nannyml.CBPE(
                y_true=truth, y_pred=answer, y_pred_proba=chances, metrics=["accuracy"], problem_type=problem,
                chunk_size=CHUNK,
            )  # fmt: skip
        metric = "mae" if problem == "regression" else "accuracy"
        made.fit(reference.copy())
        found = made.estimate(analysis.copy()).filter(period="analysis").to_df()
        values = found[(metric, "value")].tolist()
        bounds = found["chunk"][["start_index", "end_index"]].to_numpy().tolist()
        document = {
            "problem": problem, "truth": truth, "answer": answer, "scores": scores or [score] * bool(score),
            "classes": classes, "features": features, "estimates": values, "bounds": bounds,
            "version": nannyml.__version__,
        }  # fmt: skip
        key = name.replace(" ", "_")
        (folder / f"{key}.json").write_text(json.dumps(document))
        for part, frame in (("reference", reference), ("analysis", analysis)):
            texts = [column for column in features if frame[column].dtype.kind not in "iuf"]
            typed = frame.astype(dict.fromkeys(texts, str))
            typed[[*features, truth, answer, *document["scores"]]].to_parquet(folder / f"{key}_{part}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
