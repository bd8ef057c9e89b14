"""Region names as coded terms: a small list of SNOMED CT codes for what radiologists name most.

The codes are those that DICOM's context groups use (PS3.16). A name that the list lacks gets the generic code "Tissue",
never a guess; the name itself is always kept beside the code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

SCHEME = "SCT"
"""SNOMED CT, as DICOM designates it."""

Category = Literal["anatomy", "tissue", "substance", "abnormal", "object"]


@dataclass(frozen=True, slots=True)
class Code:
    """A SNOMED CT code and its meaning in words."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Term:
    """What a region is, in codes.

    Parameters
    ----------
    category, kind : Code
        DICOM's segmented property category and type.
    side : Code or None
        Left or right, where the name says so.
    known : bool
        False for the generic code.
    """

    category: Code
    kind: Code
    side: Code | None = None
    known: bool = True


CATEGORIES: dict[Category, Code] = {
    "anatomy": Code("91723000", "Anatomical Structure"),
    "tissue": Code("85756007", "Tissue"),
    "substance": Code("91720002", "Body Substance"),
    "abnormal": Code("49755003", "Morphologically Abnormal Structure"),
    "object": Code("260787004", "Physical object"),
}
SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}
_GENERIC = Code("85756007", "Tissue")

_ROWS: tuple[tuple[Category, str, str, str], ...] = (
    # category, code, meaning, other names
    ("anatomy", "12738006", "Brain", ""),
    ("anatomy", "113305005", "Cerebellum", ""),
    ("anatomy", "119238007", "Brain Stem", "brainstem"),
    ("anatomy", "66720007", "Lateral Ventricle", ""),
    ("anatomy", "40146001", "Cerebral cortex", "cortex cerebri"),
    ("anatomy", "42695009", "Thalamus", ""),
    ("anatomy", "11000004", "Caudate Nucleus", "caudate"),
    ("anatomy", "89278009", "Putamen", ""),
    ("anatomy", "14738005", "Globus Pallidus", "pallidum"),
    ("anatomy", "5366008", "Hippocampus", ""),
    ("anatomy", "4958002", "Amygdala", ""),
    ("anatomy", "88442005", "Corpus callosum", ""),
    ("anatomy", "56329008", "Pituitary", "pituitary gland"),
    ("anatomy", "79652003", "Eyeball", "eye globe"),
    ("anatomy", "81745001", "Eye", ""),
    ("anatomy", "2748008", "Spinal cord", ""),
    ("anatomy", "39607008", "Lung", ""),
    ("anatomy", "44567001", "Trachea", ""),
    ("anatomy", "955009", "Bronchus", ""),
    ("anatomy", "80891009", "Heart", ""),
    ("anatomy", "87878005", "Left ventricle", "left ventricle of heart, heart ventricle left"),
    ("anatomy", "53085002", "Right ventricle", "right ventricle of heart, heart ventricle right"),
    ("anatomy", "82471001", "Left atrium", "left atrium of heart, heart atrium left"),
    ("anatomy", "73829009", "Right atrium", "right atrium of heart, heart atrium right"),
    ("anatomy", "15825003", "Aorta", ""),
    ("anatomy", "64131007", "Inferior vena cava", "ivc"),
    ("anatomy", "48345005", "Superior vena cava", "svc"),
    ("anatomy", "32764006", "Portal vein", ""),
    ("anatomy", "81040000", "Pulmonary artery", ""),
    ("anatomy", "122972007", "Pulmonary vein", ""),
    ("anatomy", "73634005", "Common iliac artery", ""),
    ("anatomy", "59820001", "Blood Vessel", "vessel"),
    ("anatomy", "51114001", "Artery", ""),
    ("anatomy", "29092000", "Vein", ""),
    ("anatomy", "10200004", "Liver", ""),
    ("anatomy", "28231008", "Gallbladder", "gall bladder"),
    ("anatomy", "78961009", "Spleen", ""),
    ("anatomy", "15776009", "Pancreas", ""),
    ("anatomy", "64033007", "Kidney", ""),
    ("anatomy", "23451007", "Adrenal gland", "adrenal"),
    ("anatomy", "69695003", "Stomach", ""),
    ("anatomy", "32849002", "Esophagus", "oesophagus"),
    ("anatomy", "38848004", "Duodenum", ""),
    ("anatomy", "30315005", "Small intestine", "small bowel"),
    ("anatomy", "71854001", "Colon", ""),
    ("anatomy", "14742008", "Large intestine", "large bowel"),
    ("anatomy", "34402009", "Rectum", ""),
    ("anatomy", "89837001", "Bladder", "urinary bladder"),
    ("anatomy", "41216001", "Prostate", ""),
    ("anatomy", "35039007", "Uterus", ""),
    ("anatomy", "15497006", "Ovary", ""),
    ("anatomy", "69748006", "Thyroid", "thyroid gland"),
    ("anatomy", "45289007", "Parotid gland", "parotid"),
    ("anatomy", "76752008", "Breast", ""),
    ("anatomy", "59441001", "Lymph Node", ""),
    ("anatomy", "89546000", "Skull", ""),
    ("anatomy", "91609006", "Mandible", ""),
    ("anatomy", "421060004", "Spine", "vertebral column"),
    ("anatomy", "51282000", "Vertebra", "vertebrae"),
    ("anatomy", "54735007", "Sacrum", ""),
    ("anatomy", "113197003", "Rib", ""),
    ("anatomy", "56873002", "Sternum", ""),
    ("anatomy", "51299004", "Clavicle", "clavicula"),
    ("anatomy", "79601000", "Scapula", ""),
    ("anatomy", "85050009", "Humerus", ""),
    ("anatomy", "71341001", "Femur", ""),
    ("anatomy", "22356005", "Ilium", ""),
    ("anatomy", "44947003", "Erector spinae muscle", "erector spinae"),
    ("anatomy", "39937001", "Skin", ""),
    ("tissue", "389081007", "Gray Matter", "grey matter"),
    ("tissue", "389080008", "White Matter", ""),
    ("tissue", "68523003", "Cerebral White Matter", ""),
    ("tissue", "3138006", "Bone", "bone tissue"),
    ("tissue", "14016003", "Bone Marrow", "marrow"),
    ("tissue", "309312004", "Cartilage", ""),
    ("tissue", "91727004", "Muscle", "muscle tissue"),
    ("tissue", "127954009", "Skeletal muscle", ""),
    ("tissue", "55603005", "Fat", "adipose tissue"),
    ("tissue", "87784001", "Soft tissue", ""),
    ("tissue", "21793004", "Connective tissue", ""),
    ("substance", "65216001", "Cerebrospinal Fluid", "csf"),
    ("substance", "87612001", "Blood", ""),
    ("substance", "32457005", "Body fluid", "fluid"),
    ("substance", "15158005", "Air", ""),
    ("substance", "74947009", "Gas", ""),
    ("abnormal", "52988006", "Lesion", ""),
    ("abnormal", "4147007", "Mass", ""),
    ("abnormal", "108369006", "Neoplasm", "tumor, tumour"),
    ("abnormal", "367643001", "Cyst", ""),
    ("abnormal", "79654002", "Edema", "oedema"),
    ("abnormal", "6574001", "Necrosis", ""),
    ("abnormal", "50960005", "Hemorrhage", "haemorrhage, bleeding"),
    ("abnormal", "35566002", "Hematoma", "haematoma"),
    ("abnormal", "27925004", "Nodule", ""),
    ("abnormal", "60046008", "Pleural effusion", ""),
    ("object", "40388003", "Implant", ""),
)
_AMBIGUOUS = ("left ventricle", "right ventricle")  # of the heart or of the brain
_TERMS = {
    name: Term(CATEGORIES[category], Code(value, meaning))
    for category, value, meaning, others in _ROWS
    for name in (meaning.lower(), *(other.strip() for other in others.split(",") if other.strip()))
    if name not in _AMBIGUOUS
}


def known_terms() -> tuple[Term, ...]:
    """Give every term of the list, once."""
    return tuple(dict.fromkeys(_TERMS.values()))


def term_of(name: str) -> Term:
    """Code a region's name: "Left kidney", "kidney_left" and "kidneys, left" are SNOMED's kidney, on the left.

    Only a name that is nothing but a listed term, its plural, a side and a number is coded; all else ("liver cyst?",
    "region 7") gets the generic "Tissue".

    Parameters
    ----------
    name : str
        As a person wrote it.

    Returns
    -------
    Term
        `known` says whether the list has it.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    if (whole := _look_up(" ".join(words))) is not None:
        return whole
    sides = [SIDES[word] for word in words if word in SIDES]
    found = _look_up(" ".join(word for word in words if word not in SIDES))
    if found is None or len(sides) > 1:
        return Term(CATEGORIES["tissue"], _GENERIC, known=False)
    return Term(found.category, found.kind, sides[0] if sides else None)


def _look_up(name: str) -> Term | None:
    singular = name.removesuffix("s")
    return _TERMS.get(name) or _TERMS.get(singular) or _TERMS.get(name.removesuffix("es"))
