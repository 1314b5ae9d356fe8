"""The gate's journal: records, state and audit tree in one LMDB environment.

Owns: the folder ``journal/`` of a home. The gate alone opens it; tools may while the gate is down.
Must not know: messages, policy, tasks' meaning; it stores bytes and numbers.
Invariant: an acknowledged commit is on disk, whole; any other is there whole or not at all.
Source: DESIGN §4 and §5.
"""
