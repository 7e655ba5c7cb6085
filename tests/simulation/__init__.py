"""A deterministic simulation: from one number a world of servers, links and clients, and all that can go wrong there.

- the script: `_plan` (what a seed stands for), `_faults` (what can go wrong, by name)
- the stage: `_world` (the servers), `_tap` (what passes a link, seen from the client's end)
- the play: `_user` (a client's configuration, handlers and callers), `_life` (connect to end), `_play` (one seed)
- the witness: `_chronicle` (what the events tell)
- the judges: `_ledger` (what was received, and what became of it), `_invariants` (guarantees, one function each)
- the theatre: `_fleet` (many seeds, the report), `_shrink` (the shortest life that still fails), `_kept`, `_planted`

``python -m tests.simulation --help`` says what can be asked for; ``nox -s simulate`` is the same.
"""
