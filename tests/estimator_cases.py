"""Fitted estimators of other libraries, and pixels that sit on, beside and far from their thresholds."""

from __future__ import annotations

import warnings

import numpy as np

FEATURES = ("blue", "green", "red", "nir", "swir16", "ndvi")
CLASSES = ("coca", "forest", "secondary_forest", "pasture", "water")


def training_pixels(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes: float32 ``(n, 6)`` and integer labels."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, len(FEATURES))).astype(np.float32)
    X[:, 0] = np.round(X[:, 0], 1)
    X[:, 5] /= 10
    score = X[:, 1] + X[:, 2] * X[:, 3] + 3 * X[:, 5] + 0.5 * rng.normal(size=n)
    y = np.searchsorted(np.quantile(score, np.linspace(0, 1, n_classes + 1)[1:-1]), score)
    return X, y


def edge_pixels(thresholds: list[np.ndarray], n: int, seed: int = 1, missing: bool = False) -> np.ndarray:
    """Float32 ``(n, features)``: exactly on thresholds, one step beside them, huge, tiny, infinite, perhaps NaN."""
    rng = np.random.default_rng(seed)
    columns = []
    for values in thresholds:
        with np.errstate(over="ignore"):
            near = values.astype(np.float32)
        limit = np.finfo(np.float32).max
        extreme = [0.0, -0.0, 1e-45, -1e-45, 1e-38, limit, -limit, np.inf, -np.inf]
        with np.errstate(over="ignore"):
            steps = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
        pool = np.concatenate([*steps, *steps, *steps, np.asarray(extreme, np.float32)])
        column = rng.choice(pool, n)
        column[rng.random(n) < 0.1 * missing] = np.nan
        columns.append(column)
    return np.stack(columns, axis=1).astype(np.float32)


def thresholds_of(model) -> list[np.ndarray]:
    """Thresholds of each feature of a converted forest (scaled back is not needed: scaling keeps zero and order)."""
    feature, threshold = model.arrays["feature"], model.arrays["threshold"]
    lists = [threshold[feature == f] for f in range(len(model.features))]
    return [values if len(values) else np.zeros(1) for values in lists]


def fitted(name: str, n_classes: int):
    """Return one estimator, fitted on 3,000 pixels."""
    X, y = training_pixels(3000, n_classes)
    return fit(unfitted(name), X, y)


def fit(estimator, X: np.ndarray, y: np.ndarray):
    """Fit on one thread: more would only wait for each other on a busy machine."""
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return estimator.fit(X, y)


def unfitted(name: str):
    """Return one estimator that is not fitted yet."""
    from sklearn import ensemble, pipeline, preprocessing, tree

    if name == "random_forest":
        return ensemble.RandomForestClassifier(60, min_samples_leaf=3, random_state=0)
    if name == "full_forest":  # pure leaves vote 0 or 1, so that exact ties are common
        return ensemble.RandomForestClassifier(40, random_state=0)
    if name == "extra_trees":
        return ensemble.ExtraTreesClassifier(40, random_state=0)
    if name == "decision_tree":
        return tree.DecisionTreeClassifier(random_state=0)
    if name == "gradient_boosting":
        return ensemble.GradientBoostingClassifier(n_estimators=20, max_depth=4, random_state=0)
    if name == "hist_gradient_boosting":
        return ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0)
    if name == "wide_hist_gradient_boosting":  # more leaves than bit vectors take
        return ensemble.HistGradientBoostingClassifier(
            max_iter=10, max_leaf_nodes=120, min_samples_leaf=5, random_state=0
        )
    if name == "lightgbm":
        import lightgbm

        return lightgbm.LGBMClassifier(n_estimators=20, num_leaves=31, verbose=-1, random_state=0, n_jobs=1)
    if name == "xgboost":
        import xgboost

        return xgboost.XGBClassifier(n_estimators=20, max_depth=5, random_state=0, n_jobs=1)
    if name == "catboost":
        import catboost

        return catboost.CatBoostClassifier(
            iterations=20, depth=5, verbose=False, random_seed=0, thread_count=1, allow_writing_files=False
        )
    if name == "standard_scaled_forest":
        return pipeline.make_pipeline(
            preprocessing.StandardScaler(), ensemble.RandomForestClassifier(20, random_state=0)
        )
    if name == "min_max_scaled_boosting":
        return pipeline.make_pipeline(
            preprocessing.MinMaxScaler(clip=True), ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0)
        )
    raise ValueError(name)


def source_answers(estimator, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of the estimator itself."""
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        # CatBoost gives labels of three and more classes as a column
        return np.ravel(estimator.predict(X)), np.asarray(estimator.predict_proba(X))
