# SPDX-License-Identifier: MIT
"""Feature negotiation: is the set the driver wrote one this device can run with?

The answer depends on the offer and the written set alone, never on history, so
a set that was accepted once is accepted again (VIO-FEAT-04).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.spec.features import NO_FEATURES, Feature, feature_names, missing_dependencies

if TYPE_CHECKING:
    from pyvnet.device.settings import DeviceSettings

# Wider than any transport's feature field, so that a hostile bit is seen and refused, not cut off.
FEATURE_BITS: Final = 128


def refusal(settings: DeviceSettings, written: int) -> str | None:
    """Why FEATURES_OK is not granted, or None if the set is accepted (VIO-FEAT-02, -06).

    Integers where bits without a name matter: inverting an IntFlag drops them.
    """
    beyond = written & ~int(settings.offered)
    if beyond:
        return f"not offered: {', '.join(feature_names(beyond))}"
    features = Feature(written)
    if not features & Feature.VERSION_1:
        return "version_1 not accepted"
    for bit, lacking in missing_dependencies(features).items():
        # U-60: a front-end that keeps the control queue acks MQ and others without it.
        if settings.relaxed_dependencies and lacking == Feature.CTRL_VQ:
            continue
        return f"{feature_names(bit)[0]} without {' or '.join(feature_names(lacking))}"
    return None


def pairs_in_layout(max_virtqueue_pairs: int, features: Feature) -> int:
    """N of the queue order receiveq1 … transmitqN, controlq.

    ``max_virtqueue_pairs`` with MQ or RSS, 1 without: what the driver
    negotiated decides, not what was offered ("Virtqueues").
    """
    return max_virtqueue_pairs if features & (Feature.MQ | Feature.RSS) else 1


def queue_count(max_virtqueue_pairs: int, features: Feature) -> int:
    """Virtqueues that exist under ``features``, the controlq included."""
    pairs = pairs_in_layout(max_virtqueue_pairs, features)
    return 2 * pairs + bool(features & Feature.CTRL_VQ)


def controlq_index(max_virtqueue_pairs: int, features: Feature) -> int | None:
    """2N, or None when there is no control queue."""
    pairs = pairs_in_layout(max_virtqueue_pairs, features)
    return 2 * pairs if features & Feature.CTRL_VQ else None


def negotiated(written: int, *, frozen: bool) -> Feature:
    """The features in force: the written set once FEATURES_OK froze it, else none."""
    return Feature(written) if frozen else NO_FEATURES
