"""The parts of `bench/soak.py`.

fixtures.py    the models, and what is registered in MLflow           a program of its own
steady.py      the base load, each answer's value checked            a program of its own
watch.py       who asks the models, and what is said of them         a program of its own
servers.py     the gateway, MLflow and those programs as processes
clients.py     how the soak itself asks the gateway
traffic.py     events that are requests of some kind
disturb.py     events that end, stop and replace what serves
samples.py     memory, files and threads of the gateway, and what of them is flat
ledger.py      what was counted
report.py      the line of progress and the table at the end
"""
