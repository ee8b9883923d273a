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


@pytest.fixture
def few_denoising_steps(monkeypatch):
    """Views are generated in two steps where nobody says how many: what runs at each is the same."""
    from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend

    generate = Zero123PlusBackend.generate

    def briefly(self, images, generator, steps=2, *more, **options):
        return generate(self, images, generator, steps, *more, **options)

    monkeypatch.setattr(Zero123PlusBackend, "generate", briefly)
