"""Words for the text tasks: common ones, and invented ones so that spelling is learnt rather than remembered."""

from __future__ import annotations

import random
from functools import cache

from .tasks import is_held_out, pick

COMMON = """
able about above across act add after again air all alone along also always animal answer apple april arm art ask
autumn away baby back bad bag ball banana band bank base basket bath beach bean bear beautiful bed bee begin bell
berry best better big bike bird black blue boat body bone book boot born both bottle bottom bowl box boy branch
brave bread break breakfast bridge bright bring brother brown brush build burn bus busy butter button buy cake call
camel camera camp candle candy cap car card care carrot carry castle cat catch cave center chair chalk chance change
chat cheese cherry chess chicken child circle city class clean clear climb clock close cloth cloud coat code coffee
cold color come computer convert cook cookie cool copper corn corner cotton count country cousin cover cow crab
cream cross crow crowd crown cup curtain dance dark data daughter day deep deer desert desk dinner dish doctor dog
doll dolphin donkey door dot doubt down dragon draw dream dress drink drive drop drum duck dust eagle ear early
earth east easy eat edge egg eight elbow elephant empty end engine enjoy evening every exam eye face fact fall
family farm fast father feather field fig fight file film find fine finger fire fish five flag flat flight floor
flour flower fly fold food foot forest fork four fox free fresh friend frog front fruit full fun future game garden
garlic gate gentle ghost giant giraffe girl give glad glass glove goat gold good goose grape grass gray great green
ground group grow guess guitar hair hall hammer hand happy harbor hard hat hawk head heart heavy hello help hen here
high hill history hobby hold hole holiday home honest honey hope horse hospital hot hotel hour house human hundred
hungry ice idea ink insect iron island jacket jam january jar jelly jewel job join joke juice jump june jungle just
kangaroo keep kettle key kid kind king kiss kitchen kite kitten knee knife know ladder lady lake lamb lamp land
language large last late laugh law leaf learn leather left leg lemon letter level library life light lily line lion
lip list listen little lizard local lock long look love low lucky lunch machine magic make mango map market mask
master match math meadow meal meat melon memory metal middle milk mind minute mirror model money monkey month moon
morning mother mountain mouse mouth movie music nail name narrow nature neck needle nest never new news next night
nine noise noodle noon north nose note number nurse nut oak ocean october office oil old olive one onion open orange
orbit order other owl page paint palace panda paper parade parent park parrot party path peace peach pear pen pencil
people pepper phone photo piano picture pie pig pillow pilot pink pipe place plain planet plant plate play pocket
poem poet point pond pony potato power present pretty prince puppy purple puzzle python quantize queen question
quick quiet rabbit race radio rain rainbow read ready red rest rice rich ride right ring river road robot rock roof
room root rope rose round ruler run sad safe salad salt sand school science sea season seed seven shadow shape sheep
shell ship shirt shoe shop short shoulder silver simple sing sister six size skirt sky sleep slow small smart smile
smoke snake snow soap soccer sock sofa soft soil son song soup south space spark speak spell spider spoon spring
square squirrel star start station steam stone stop store storm story strawberry street strong student sugar summer
sun sunday sweet swim table tail tale talk tall taste tea teacher team ten tent test thank thin think three thumb
ticket tiger time tiny tomato tooth top town toy train travel tree triangle truck true trust turtle twelve two
umbrella uncle under up use valley vase very village violin visit voice wait walk wall walnut warm wash watch water
wave way weather week west whale wheat wheel white wide wild wind window wine wing winter wire wise wolf woman
wonder wood wool word work world worm write yard year yellow yes young zebra zero zoo
""".split()

NAMES = """
Anna Ben Bob Carl Clara Dan David Emma Eva Frank Grace Hanna Hugo Ida Jack Jane Kim Leo Lena Lily Lucy Maria Mark
Max Mia Nina Noah Olga Oscar Paul Peter Rosa Ruby Sam Sara Simon Sofia Tim Tom Victor Wendy Yuki Zoe Alice Amir Chen
Diego Fatima Li Wei
""".split()
NAMES_ZH = "小明 小红 小华 小李 小王 小张 阿强 丽丽 大卫 安娜".split()

ONSETS = [
    *"b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p ph pl pr qu r s sc sh sk sl sm".split(),
    *"sn sp st str t th tr v w y z".split(),
    "",
]
VOWELS = "a e i o u a e i o u ai ea ee ie oa oo ou y".split()
CODAS = "b ck d f g k l ll m n nd ng nt p r rd rk rn rt s sh ss st t th x z".split() + [""] * 8


@cache
def common(held_out: bool) -> list[str]:
    """The real words of one side of the split."""
    return [word for word in COMMON if is_held_out("word:" + word) == held_out]


def invented(rng: random.Random) -> str:
    """A pronounceable word that most likely does not exist."""
    syllables = rng.choices((1, 2, 3), (4, 5, 1))[0]
    return "".join(pick(rng, ONSETS) + pick(rng, VOWELS) + pick(rng, CODAS) for _ in range(syllables))[:9]


def draw_word(rng: random.Random, held_out: bool = False, longest: int = 10, invent: float = 0.35) -> str:
    """A word of two letters or more from one side of the split."""
    while True:
        word = pick(rng, common(held_out)) if held_out or rng.random() > invent else invented(rng)
        if 2 <= len(word) <= longest and (held_out or not is_held_out("word:" + word)):
            return word


def draw_words(rng: random.Random, count: int, held_out: bool = False, longest: int = 8) -> list[str]:
    """Different words."""
    words: list[str] = []
    while len(words) < count:
        word = draw_word(rng, held_out, longest, invent=0.1)
        if word not in words:
            words.append(word)
    return words
