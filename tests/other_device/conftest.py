"""Models on the stand-in device. Nothing here makes the device at its import: pytest reads this file in every run."""

import pytest


@pytest.fixture(scope="session")
def there(model_folder):
    """The model of the fixture `backend`, on the device."""
    import pretend_device
    from keyorbit.diffusion.backends.loading import load_backend

    return load_backend(model_folder, device=pretend_device.NAME, dtype="float32")


@pytest.fixture(scope="session")
def stable_diffusion_there(stable_diffusion_folder):
    import pretend_device
    from keyorbit.diffusion.backends.loading import load_backend

    return load_backend(stable_diffusion_folder, device=pretend_device.NAME, dtype="float32")


@pytest.fixture(scope="session")
def tokens(backend, objects):
    """Tokens discovered on the CPU."""
    from keyorbit.discovery.discover import discover
    from other_device.common import FEW

    return discover(backend, objects, FEW)
