"""Words that the generators fill in; each list is fixed, since their texts and hashes rest on it."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


FIRST = words(
    """
    Ada Boris Carmen Dmitri Elena Farid Greta Hugo Ines Jonas Kira Leon Mara Nadia Oscar Petra Quentin Rosa Stefan
    Tara Umar Vera Walter Xenia Yusuf Zora Anton Bianca Cyrus Dora Emil Fiona Gideon Hanna Ivan Judith Karim Lydia
    Marco Nora
    """
)
MIDDLE = words(
    """
    Abel Blythe Clare Dale Elm Faye Grey Holt Iris Jude Kent Lane Merle Neal Oak Paige Quinn Reed Sage Tate Uri Vale
    Wynn York Zane
    """
)
LAST = words(
    """
    Abbott Barlow Castell Dunmore Eastman Fairley Galloway Harding Ivers Jessup Kendrick Lockwood Mercer Norwood
    Oakley Prescott Quimby Radcliffe Sandoval Thackeray Underhill Vickers Wakefield Yardley Zimmer Ashdown Bramwell
    Colfax Drummond Ellsworth Fenwick Goodwin Hathaway Ingram Jarvis Kingsley Langford Maddox Nesbitt Osborne
    Pemberton Ramsey Sheridan Templeton Upton Vaughn Whitlock Ackerman Beckett Crawley
    """
)
CITIES = words(
    """
    Avonlea Brackwater Calder Dunholm Eastmere Fallow Glenrock Harrow Inverness Juniper Kestrel Larkspur Midvale
    Newhaven Orchard Pinecrest Quarry Riverton Silverton Thornbury
    """
)
UNIVERSITIES = words(
    """
    Aldergate Birchwood Cresthaven Dartmoor Elmbridge Foxglove Greystone Hollybrook Ironwood Jasperfield Kingsbridge
    Lindenhall Marlowe Northgate Oakmont Primrose Queensbury Ravenmoor Stonebridge Thistledown
    """
)
MAJORS = words(
    """
    Astronomy Biology Chemistry Drama Economics Forestry Geology History Linguistics Mathematics
    """
)
COMPANIES = words(
    """
    Acmetron Bluepeak Coralis Dynavolt Everline Fluxworks Gravitas Helixor Inkwell Jetstream Kiteworks Lumena
    Microvale Nimbus Octavia Pixelon Quantica Redstone Solaris Terranova
    """
)
THINGS = words(
    """
    apples pears plums lemons marbles stickers pencils shells coins stamps buttons postcards cookies muffins walnuts
    peaches ribbons candles tickets crayons badges beads acorns tulips
    """
)
NUMBERS = words(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
    """
)
