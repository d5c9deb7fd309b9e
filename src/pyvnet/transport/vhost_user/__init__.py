# SPDX-License-Identifier: MIT
"""A device behind a vhost-user socket: the protocol's back-end.

``messages.py`` is the table from message to handler; handlers live by subject in
``negotiation.py``, ``memory.py`` and ``rings.py``.  ``session.py`` is one
front-end's conversation, sans-IO; ``connection.py`` the socket around it.
"""
