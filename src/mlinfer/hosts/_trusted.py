"""The one list of types that a model file may hold besides those that skops trusts by itself.

skops knows scikit-learn's public estimators. What is added here is what they learn: trees, neighbour indices, losses,
splitters, kernels and a few functions without side effects. Each is data for scikit-learn's own code; none imports, opens
or starts anything when it is built. Every name was found by saving a fitted estimator of that family.
"""

TRUSTED = frozenset(
    """
    collections.OrderedDict
    functools.partial
    numpy.dtype
    numpy.mean
    numpy.median
    numpy.max
    numpy.min
    scipy.interpolate._bsplines.BSpline
    scipy.sparse._csc.csc_matrix
    scipy.sparse._csr.csr_matrix
    sklearn._loss.loss.HalfTweedieLoss
    sklearn._loss.loss.HalfTweedieLossIdentity
    sklearn.calibration._CalibratedClassifier
    sklearn.calibration._SigmoidCalibration
    sklearn.cluster._bisect_k_means._BisectingTree
    sklearn.cluster._kmeans._kmeans_single_elkan
    sklearn.cluster._kmeans._kmeans_single_lloyd
    sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor
    sklearn.tree._tree.Tree
    sklearn.utils._bunch.Bunch
    """.split()
)
