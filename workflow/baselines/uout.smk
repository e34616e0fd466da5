"""Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift, Li et al., CVPR 2019."""


use rule cell as uout with:
    input:
        fit="baselines/uout.py",
        data=DATA,
    wildcard_constraints:
        method="uout(-.+)?",
