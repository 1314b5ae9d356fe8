"""The audit tree: RFC 6962 hashes, proofs, and their verifiers.

Owns: the arithmetic of the tree. The verifiers need nothing but this file, so an auditor can read it alone.
Must not know: where nodes are stored; readers are given as a function.
Invariant: entry i holds the hash of leaf i and of every node that leaf i completes, lowest first, 32 bytes
           each; it is written once (test_tree_agrees_with_the_naive_recursion).
Source: RFC 6962 §2.1; RFC 9162 §2.1.3.2 and §2.1.4.2 for the verifiers.

Storing nodes by the leaf that completes them keeps the tree append-only: a (level, index) key would insert in
the middle of the database, once per level.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Self

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

ReadEntry = Callable[[int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """Hash the data of one leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two children into their parent."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The roots of the full subtrees at the right edge: all that appending needs."""

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Take the number of leaves and the peaks, widest first."""
        self.size = size
        self.peaks = list(peaks)

    def copy(self) -> Self:
        """Give an independent frontier of the same tree."""
        return type(self)(self.size, self.peaks)

    def append(self, leaf: bytes) -> bytes:
        """Add a leaf hash; give the entry to store under its index."""
        entry = node = leaf
        peaks, rest = self.peaks, self.size
        while rest & 1:
            node = sha256(b"\x01" + peaks.pop() + node).digest()
            entry += node
            rest >>= 1
        peaks.append(node)
        self.size += 1
        return entry

    def root(self) -> bytes:
        """Give the root of the whole tree."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


class Tree:
    """A tree of which the entries can be read: roots of any past size, and proofs."""

    def __init__(self, size: int, read_entry: ReadEntry) -> None:
        """Take the number of leaves and a function from leaf index to entry."""
        self.size = size
        self._read_entry = read_entry

    def frontier(self, size: int) -> Frontier:
        """Load the frontier of the first ``size`` leaves: one read per set bit."""
        self._check(0 <= size <= self.size, size)
        peaks, start = [], 0
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                peaks.append(self._full(start, start + (1 << level)))
                start += 1 << level
        return Frontier(size, peaks)

    def root(self, size: int) -> bytes:
        """Give the root that the tree had at ``size`` leaves."""
        return self.frontier(size).root()

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Prove that leaf ``index`` is in the tree of ``size`` leaves (RFC 6962 PATH)."""
        self._check(0 <= index < size <= self.size, index)
        proof: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._subtree(middle, end))
                end = middle
            else:
                proof.append(self._subtree(start, middle))
                start = middle
        return proof[::-1]

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Prove that the tree of ``new`` leaves begins with that of ``old`` (RFC 6962 PROOF); empty for 0."""
        self._check(0 <= old <= new <= self.size, old)
        proof: list[bytes] = []
        start, end, known = 0, new, True
        while 0 < old < end:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(self._subtree(middle, end))
                end = middle
            else:
                proof.append(self._subtree(start, middle))
                start, known = middle, False
        if old and not known:
            proof.append(self._subtree(start, end))
        return proof[::-1]

    def _subtree(self, start: int, end: int) -> bytes:
        """Hash of the leaves from ``start`` to ``end``; ``start`` is a multiple of the next power of two."""
        width = end - start
        if width & (width - 1) == 0:
            return self._full(start, end)
        middle = start + _split(width)
        return node_hash(self._full(start, middle), self._subtree(middle, end))

    def _full(self, start: int, end: int) -> bytes:
        level = (end - start).bit_length() - 1
        return self._read_entry(end - 1)[HASH_BYTES * level : HASH_BYTES * (level + 1)]

    def _check(self, fits: bool, asked: int) -> None:
        if not fits:
            msg = f"the tree has {self.size} leaves; asked for {asked}"
            raise ValueError(msg)


def _split(width: int) -> int:
    """The largest power of two smaller than ``width`` (RFC 6962's k)."""
    return 1 << ((width - 1).bit_length() - 1)


def entry_bytes(index: int) -> int:
    """Size of the entry of leaf ``index``: one hash, and one for each trailing one bit."""
    return HASH_BYTES * ((index ^ (index + 1)).bit_length())


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows the hash ``leaf`` as number ``index`` under ``root`` (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows ``new_root``'s tree to begin with ``old_root``'s (RFC 9162 §2.1.4.2)."""
    if not 0 <= old <= new or (old in {0, new} and proof):
        return False
    if old in {0, new}:
        return old_root == (EMPTY_ROOT if old == 0 else new_root) and (new > 0 or new_root == EMPTY_ROOT)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and old_node == old_root and new_node == new_root
