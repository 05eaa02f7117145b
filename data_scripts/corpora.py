"""The public corpora in SpERT's format: their files, splits and checksums."""

from __future__ import annotations

from dataclasses import dataclass

# Where SpERT's authors offer their files. The address is http; the checksums below make that safe.
ADDRESS = "http://lavis.cs.hs-rm.de/storage/spert/public/datasets"

FOLDS = tuple(f"split_{fold}" for fold in range(10))


@dataclass(frozen=True)
class Corpus:
    """A corpus: `splits` maps the name of a configuration to its splits and their files, `types` is the types file.

    A split's files are read one after the other. File names are relative to the corpus's folder. The first
    configuration is the default.
    """

    name: str
    description: str
    homepage: str
    splits: dict[str, dict[str, tuple[str, ...]]]
    types: str


CONLL04 = Corpus(
    name="conll04",
    description="CoNLL04 (Roth and Yih 2004): news sentences with 4 entity types and 5 relation types.",
    homepage="https://aclanthology.org/W04-2401/",
    splits={
        "default": {"train": ("conll04_train.json",), "dev": ("conll04_dev.json",), "test": ("conll04_test.json",)},
        "train_dev": {"train": ("conll04_train_dev.json",), "test": ("conll04_test.json",)},
    },
    types="conll04_types.json",
)
SCIERC = Corpus(
    name="scierc",
    description="SciERC (Luan et al. 2018): scientific abstracts with 6 entity types and 7 relation types.",
    homepage="https://aclanthology.org/D18-1360/",
    splits={
        "default": {"train": ("scierc_train.json",), "dev": ("scierc_dev.json",), "test": ("scierc_test.json",)},
        "train_dev": {"train": ("scierc_train.json", "scierc_dev.json"), "test": ("scierc_test.json",)},
    },
    types="scierc_types.json",
)
# The folds have no dev file: the builder carves dev out of "train", except where the name ends in "_train_dev".
ADE = Corpus(
    name="ade",
    description="ADE (Gurulingappa et al. 2012): sentences of case reports on drugs and their adverse effects.",
    homepage="https://doi.org/10.1016/j.jbi.2012.04.008",
    splits={
        **{
            fold + suffix: {"train": (f"ade_{fold}_train.json",), "test": (f"ade_{fold}_test.json",)}
            for suffix in ("", "_train_dev")
            for fold in FOLDS
        },
        "full": {"train": ("ade_full.json",)},
    },
    types="ade_types.json",
)

SHA256 = {
    "ade/ade_full.json": "5bc2355bcb3fa326d0749af0368e7b428b44a63fb8a1fb76ffeef14825e51384",
    "ade/ade_split_0_test.json": "6d6a3584d3876a35854ef703f7a7059363599ad7ed3ab9c3e6e449ae8a252e9a",
    "ade/ade_split_0_train.json": "6624ac4d015c75f551aa15a43bd05e268082d98297d18269662737f7df358365",
    "ade/ade_split_1_test.json": "532fa740c11466c54d06dfe4e2989bd800c046cb31c409f074b7b3d49cf99b23",
    "ade/ade_split_1_train.json": "811befd6d23d2aeb7cff3469d4b22d0c58fa61557b03257986ea1559042d42fe",
    "ade/ade_split_2_test.json": "69c4844907809f4e76516d7e9b7f8f2fa5eab2bdf27ee0dc02bdb367e673f994",
    "ade/ade_split_2_train.json": "c13ff04545537879e1d2fa41ed25c4e5831bbd75d2c07a4d7c0e60d2691b5b25",
    "ade/ade_split_3_test.json": "07e188e39118bd9644d4bb74ad841099853a5dfbecb035e5af2dc83a7d927495",
    "ade/ade_split_3_train.json": "1d65b2aab0da37d3125cb0a90f6c66ad05af4ebb6f4685c4ede242cfb587cb1e",
    "ade/ade_split_4_test.json": "937eff5f8982fff83655872fcf150876145e75a381dcedfc45e2411f47146edc",
    "ade/ade_split_4_train.json": "de8cdb999563697d330d97b9ac95a5ae1c83106eb812f25b12d807c6628f28a4",
    "ade/ade_split_5_test.json": "d01d706574d4921304d3b53a0b013fbe41d2f97439245cf768c503df1e70a9f3",
    "ade/ade_split_5_train.json": "474668717b0fbcb4cf6fda984b8897b2e66f2550c9a052187c6ece012960a6cf",
    "ade/ade_split_6_test.json": "3e35e7278060f16103665a47db1480e305346f255872ced202617c6d8025bb01",
    "ade/ade_split_6_train.json": "c3e41dea7c11c34da7f32be45ced3a162fff30abeb0939698937fe7a83446dca",
    "ade/ade_split_7_test.json": "6c4f25fffd1ce4fb1bf67bc54713b44f6e1abb9ca744d06a38ed88731a8d1371",
    "ade/ade_split_7_train.json": "3839c5f7cfd5c9e260a3a60a9c79f6ed54d21d66288413c8a2c2d8e985e9081c",
    "ade/ade_split_8_test.json": "69fb620cc4f9fe4d35533dba74b7234ebb2c2e69a988a8945219563ad12feb3c",
    "ade/ade_split_8_train.json": "9c5c698bb7d5a72e11685a63de4a6b525e073eede445eaae0d44ce42166fffcc",
    "ade/ade_split_9_test.json": "a02776d17963ada8aad5e1d4370e96d2478a8e44fd0944274ac0c44f4499b0ed",
    "ade/ade_split_9_train.json": "e863f0b8a717364fd553e55e041ea89e2a52d116e5b047cbaa1882410ab0813f",
    "ade/ade_types.json": "3d3bced9f971a85ae5e55fce27098923cb41e887f5e6d612e8e1844fc284d1b5",
    "conll04/conll04_dev.json": "3965a5110a79671fb74a78c0fd0113c4da6583c3833bd418c1ca414bb491e010",
    "conll04/conll04_test.json": "347f45cf181b5641d2373248a1af0592954415234f72536835dde1df1b504556",
    "conll04/conll04_train.json": "65c52d5b6134c72c44277c74c5ecb354bf33aa352fc7b856edf6bda0bb436eea",
    "conll04/conll04_train_dev.json": "1eae483f3206145159d06099964ebd421b5a9c46ea1d838fc3faf0ba1baeafa1",
    "conll04/conll04_types.json": "9244d21d2640430f03eda97f59ce3e0a28a766964b1c04683c80656b5e505ad8",
    "scierc/scierc_dev.json": "77506c1a9d9e6a3f596fdce937a1d80679c24df75a8b7cb836737c2a43ff0ec0",
    "scierc/scierc_test.json": "ecc88eca58a88cf2087aaa996dada9edad433c3c2f3f8f5be93625b098c20703",
    "scierc/scierc_train.json": "40879beb794a2d947c60f4e7e936c269b5f35ce516e9e155cbff1feea0c3e8da",
    "scierc/scierc_types.json": "c092a29d28cc0186b5846c1c56e844e3cb07c6f5196c2efdf432888119434a85",
}
