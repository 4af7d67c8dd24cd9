"""Medical-image models that hold up at the next hospital.

`shiftproof.api` has the functions behind the commands: `cohort`, `check`, `train`, `study`, `evaluate`, `report`,
`deliver`, `predict`.
"""
