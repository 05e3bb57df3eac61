import numpy as np
from sklearn.preprocessing import StandardScaler


def scaled(rows):
    return StandardScaler().fit_transform(np.asarray(rows))
