"""The DAG: the stage contract, the specification, the plan and the runner."""
