import atrous
from atrous.recipes import camvid
from atrous.train.recipe import Recipe


def test_the_shipped_model_was_trained_by_its_recipe() -> None:
    metadata = atrous.load("camvid", runtime="onnxruntime").metadata
    shipped, recipe = Recipe.from_dict(dict(metadata.recipe)).to_dict(), camvid().to_dict()
    changed = {name for name in recipe if recipe[name] != shipped[name]}
    assert changed == {"num_workers", "checkpoint_every", "log_every"}  # which change no weight
