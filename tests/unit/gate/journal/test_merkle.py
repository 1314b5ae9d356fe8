from hashlib import sha256

import pytest
from hypothesis import given, settings, strategies as st

from homeostat.workers.gate.journal.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    entry_bytes,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.integers(1, 130)
DATA = st.lists(st.binary(max_size=8), min_size=1, max_size=70)


def naive_root(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash as RFC 6962 §2.1 defines it, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """The audit path as RFC 6962 §2.1.1 defines it."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def naive_proof(old: int, leaves: list[bytes], known: bool = True) -> list[bytes]:
    """The consistency proof as RFC 6962 §2.1.2 defines it."""
    if old == len(leaves):
        return [] if known else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if old <= k:
        return [*naive_proof(old, leaves[:k], known), naive_root(leaves[k:])]
    return [*naive_proof(old - k, leaves[k:], False), naive_root(leaves[:k])]


def grow(data: list[bytes]) -> tuple[Frontier, Tree]:
    """Append all leaves and give the frontier and the stored tree."""
    frontier, entries = Frontier(), list[bytes]()
    for item in data:
        entries.append(frontier.append(leaf_hash(item)))
    return frontier, Tree(len(entries), entries.__getitem__)


def leaves_of(size: int) -> list[bytes]:
    """Distinct leaves."""
    return [b"leaf %d" % i for i in range(size)]


def test_root_is_the_known_one_for_the_rfc_vectors() -> None:
    """The test vectors of Certificate Transparency's reference implementation hold."""
    vectors = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for size, item in enumerate(vectors, 1):
        frontier.append(leaf_hash(bytes.fromhex(item)))
        assert size not in roots or frontier.root().hex() == roots[size]


@given(DATA)
def test_tree_agrees_with_the_naive_recursion(data: list[bytes]) -> None:
    """Roots at every size, entry sizes and reloaded frontiers are those of the definition."""
    frontier, tree = grow(data)
    assert frontier.root() == naive_root(data)
    for size in range(len(data) + 1):
        loaded = tree.frontier(size)
        assert loaded.root() == tree.root(size) == naive_root(data[:size])
        if size < len(data):
            assert len(loaded.append(leaf_hash(data[size]))) == entry_bytes(size)
            assert loaded.root() == naive_root(data[: size + 1])


@given(SIZES, st.data())
def test_inclusion_proof_convinces_only_of_what_is_there(size: int, draw: st.DataObject) -> None:
    """A proof is the RFC's, verifies, and fails for any other index, leaf, size or bent hash."""
    data = leaves_of(size)
    index = draw.draw(st.integers(0, size - 1))
    frontier, tree = grow(data)
    leaf, root = leaf_hash(data[index]), frontier.root()
    proof = tree.inclusion_proof(index, size)
    assert proof == naive_path(index, data)
    assert verify_inclusion(leaf, index, size, proof, root)
    assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
    assert not verify_inclusion(leaf, size, size, proof, root)
    assert not verify_inclusion(leaf, index, size, [*proof, leaf], root)
    other = draw.draw(st.integers(0, size - 1))
    assert other == index or not verify_inclusion(leaf, other, size, proof, root)
    for at, sibling in enumerate(proof):
        bent = [*proof[:at], bytes([sibling[0] ^ 1]) + sibling[1:], *proof[at + 1 :]]
        assert not verify_inclusion(leaf, index, size, bent, root)
        assert not verify_inclusion(leaf, index, size, proof[:at] + proof[at + 1 :], root)


@settings(max_examples=200)
@given(SIZES, st.data())
def test_consistency_proof_convinces_only_of_a_prefix(size: int, draw: st.DataObject) -> None:
    """A proof is the RFC's, verifies, and fails for another past or a bent hash."""
    data = leaves_of(size)
    old = draw.draw(st.integers(1, size))
    frontier, tree = grow(data)
    old_root, root = tree.root(old), frontier.root()
    proof = tree.consistency_proof(old, size)
    assert proof == naive_proof(old, data)
    assert verify_consistency(old, size, old_root, root, proof)
    rewritten = naive_root([*data[: old - 1], b"rewritten"])
    assert not verify_consistency(old, size, rewritten, root, proof)
    assert not verify_consistency(old, size, old_root, rewritten, proof)
    assert not verify_consistency(old, size, old_root, root, [*proof, root])
    for at, node in enumerate(proof):
        bent = [*proof[:at], bytes([node[0] ^ 1]) + node[1:], *proof[at + 1 :]]
        assert not verify_consistency(old, size, old_root, root, bent)


def test_consistency_is_trivial_from_nothing_and_to_itself() -> None:
    """The empty tree begins every tree, and a tree begins itself; neither with a wrong root or a proof."""
    frontier, tree = grow(leaves_of(5))
    root = frontier.root()
    assert tree.consistency_proof(0, 5) == tree.consistency_proof(5, 5) == []
    assert verify_consistency(0, 5, EMPTY_ROOT, root, [])
    assert verify_consistency(5, 5, root, root, [])
    assert verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not verify_consistency(0, 0, EMPTY_ROOT, root, [])
    assert not verify_consistency(0, 5, root, root, [])
    assert not verify_consistency(5, 5, EMPTY_ROOT, root, [])
    assert not verify_consistency(3, 5, tree.root(3), root, [])
    assert not verify_consistency(6, 5, root, root, [])


@pytest.mark.parametrize(("index", "size"), [(5, 5), (-1, 5), (0, 6), (0, 0)])
def test_tree_refuses_to_prove_what_it_does_not_hold(index: int, size: int) -> None:
    """Proofs outside the tree are an error, not a wrong proof."""
    _, tree = grow(leaves_of(5))
    with pytest.raises(ValueError, match="5 leaves"):
        tree.inclusion_proof(index, size)
