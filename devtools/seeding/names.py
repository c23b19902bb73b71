"""Names of companies that are none, and addresses at which nobody is: example.com is reserved (RFC 2606)."""

import re
import unicodedata

PLACES = (
    "Alder Creek", "Amberfield", "Anvil Ridge", "Ashgrove", "Bayhollow", "Birchwater", "Blue Mesa", "Bramblewood",
    "Brightstone", "Cañon Vista", "Cedar Bluff", "Clearfork", "Cobblegate", "Copperline", "Crestwater", "Dovetail",
    "Eastmark", "Elkhorn Pass", "Fairmeadow", "Fallbrook", "Flintlock", "Foxglove", "Glenhollow", "Granite Point",
    "Gull Harbor", "Harborline", "Hawksmoor", "Hazelton Park", "Highplain", "Hollowell", "Ironwood", "Juniper Flats",
    "Keystone Bend", "Kingfisher", "Lakeridge", "Larkspur", "Limestone Hill", "Longacre", "Maplewright", "Millrace",
    "Montréal Road", "Northgate", "Oakhaven", "Old Quarry", "Peña Blanca", "Pinecrest", "Quillwater", "Red Barn",
    "Ridgeback", "Riverbend", "Saltgrass", "Silver Birch", "Stonebridge", "Sundial", "Tallgrass", "Three Pines",
    "Timberline", "Union Street", "Vale & Moor", "Wagon Wheel", "Westbrook", "Whitefield", "Willow Run", "Yarrow",
)  # fmt: skip
TRADES = (
    "Builders", "Carpentry", "Civil", "Concrete", "Construction", "Contracting", "Demolition", "Drywall", "Electric",
    "Engineering", "Excavation", "Fabrication", "Fire Protection", "Foundations", "Framing", "General Contractors",
    "Glazing", "Heavy Haul", "Insulation", "Interiors", "Landscape", "Masonry", "Mechanical", "Millwork", "Paving",
    "Piling", "Plumbing", "Restoration", "Roofing", "Scaffold", "Site Services", "Steel", "Structures", "Survey",
    "Tile & Stone", "Tunneling", "Utilities", "Waterproofing", "Welding", "Woodworks",
)  # fmt: skip
REGIONS = (
    "Alaska", "Arizona", "Colorado", "Florida", "Georgia", "Idaho", "Illinois", "Iowa", "Kansas", "Maine", "Maryland",
    "Michigan", "Minnesota", "Montana", "Nevada", "New Mexico", "New York", "Ohio", "Oregon", "Québec", "Tennessee",
    "Texas", "Utah", "Vermont", "Virginia", "Washington", "Wisconsin", "Wyoming",
)  # fmt: skip
GIVEN = (
    "Aisha", "Alan", "Amara", "Andre", "Anya", "Beatriz", "Ben", "Carla", "Chen", "Dana", "David", "Devon", "Elena",
    "Emeka", "Farah", "Frank", "Grace", "Hana", "Hugo", "Ines", "Ivan", "Jack", "Jorge", "Kai", "Kate", "Lamar",
    "Leila", "Luis", "Maria", "Mei", "Nadia", "Noah", "Omar", "Paula", "Priya", "Quinn", "Rafael", "Rosa", "Sam",
    "Sofia", "Tariq", "Tess", "Uma", "Victor", "Wanda", "Xavier", "Yusuf", "Zoe",
)  # fmt: skip
FAMILY = (
    "Abara", "Andersen", "Bailey", "Becker", "Castillo", "Clark", "Cruz", "Dubois", "Eriksen", "Flores", "Fischer",
    "Garza", "Greene", "Haddad", "Hale", "Ibarra", "Jansen", "Johal", "Kaur", "Kim", "Kowalski", "Lopez", "Lund",
    "Mbeki", "Mendez", "Moreau", "Nguyen", "Novak", "Okafor", "Ortiz", "Park", "Patel", "Quist", "Ramos", "Reyes",
    "Rossi", "Sato", "Silva", "Singh", "Tanaka", "Torres", "Ueda", "Vargas", "Walsh", "Weber", "Yilmaz", "Zhang",
)  # fmt: skip

_PAIRS = len(PLACES) * len(TRADES)
_PEOPLE = len(GIVEN) * len(FAMILY)
# Prime, and so with no factor in common with the numbers above: each step leads to another name until all are used.
_STRIDE = 1009


def company_name(number: int, start: int) -> str:
    """Return the name of a company by its number, from 0 on: another for each, in an order that `start` shifts."""
    branch, step = divmod(number, _PAIRS)
    place, trade = divmod((start + step * _STRIDE) % _PAIRS, len(TRADES))
    name = f"{PLACES[place]} {TRADES[trade]}"
    if not branch:
        return name
    again, region = divmod(branch - 1, len(REGIONS))
    return f"{name} of {REGIONS[region]}" + (f" {again + 1}" if again else "")


def domain(company: str) -> str:
    """Return the domain of a company, by its name."""
    letters = unicodedata.normalize("NFKD", company).encode("ascii", "ignore").decode().lower()
    return f"{re.sub('[^a-z0-9]+', '-', letters)}.example.com"


def mailbox(number: int, start: int) -> str:
    """Return the part before the @ of a company's user by their number: another for each, from where `start` says."""
    given, family = divmod((start + number * _STRIDE) % _PEOPLE, len(FAMILY))
    return f"{GIVEN[given]}.{FAMILY[family]}".lower()
