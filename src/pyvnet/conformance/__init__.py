# SPDX-License-Identifier: MIT
"""The conformance suite: what any virtio-net back-end owes, looked at without a guest.

``case.py`` is how a case is written, ``trial.py`` what it has in its hands,
``run.py`` runs a suite within bounded time, ``report.py`` prints what came out.
``target.py`` and ``builtin.py`` are the devices it can be run against, ``wire.py``
the other side of them; ``cases/`` are the cases.
"""
