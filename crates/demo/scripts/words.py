"""Word lists and fixed texts of make_corpus.py."""

WORDS = """cat dog fox hen pig cow bee ant owl bat sun sky sea ice hat cup key box bag bed pen map red hot day egg jam pie tea toy car bus boat ship bird fish frog bear
wolf deer duck goat lamb lion moon star rain snow wind fire tree leaf rose seed corn milk cake bread apple lemon plum pear grape peach book lamp desk door wall
roof road park farm lake hill cave rock sand gold blue pink green black white brown table chair clock spoon plate knife glass stone river ocean house horse mouse
sheep tiger zebra panda robin music piano drum flute happy small large quick quiet sleep dream smile laugh dance light night water earth cloud storm tower"""
WORDS = WORDS.split()
CATS = {
    ("animal", "animals"): "fox bear wolf lion tiger horse rabbit mouse goat sheep zebra camel panda otter badger deer".split(),
    ("bird", "birds"): "robin owl crow swan eagle parrot sparrow duck goose penguin pigeon raven".split(),
    ("fruit", "fruits"): "apple pear plum peach cherry banana lemon grape mango orange melon fig".split(),
    ("vegetable", "vegetables"): "carrot potato onion cabbage pea bean leek spinach turnip cucumber".split(),
    ("colour", "colours"): "red blue green yellow orange purple pink brown black white grey".split(),
    ("tool", "tools"): "hammer saw drill spade rake axe wrench chisel ladder screwdriver".split(),
    ("instrument", "musical instruments"): "piano violin flute drum guitar harp trumpet cello organ horn".split(),
    ("flower", "flowers"): "rose tulip daisy lily violet poppy iris sunflower orchid".split(),
    ("tree", "trees"): "oak pine birch maple willow beech elm ash cedar".split(),
    ("drink", "drinks"): "water tea milk coffee juice cocoa lemonade soup".split(),
    ("country", "countries"): "France Germany Italy Spain Japan India Brazil Canada Egypt Kenya Norway Peru".split(),
    ("city", "cities"): "Paris Berlin Rome Madrid Tokyo London Vienna Oslo Lima Cairo Athens Dublin".split(),
    ("sport", "sports"): "tennis football swimming running skiing rowing cycling boxing golf".split(),
    ("insect", "insects"): "bee ant wasp beetle fly moth butterfly cricket".split(),
    ("job", "jobs"): "baker farmer teacher doctor pilot sailor painter nurse carpenter cook".split(),
    ("season", "seasons"): "spring summer autumn winter".split(),
    ("vehicle", "vehicles"): "car bus train bicycle boat plane truck ship tram".split(),
    ("programming language", "programming languages"): "Rust Python C Java Go JavaScript Haskell Lisp".split(),
    ("feeling", "feelings"): "joy fear anger love hope pride surprise sadness".split(),
}
NUMW = "zero one two three four five six seven eight nine ten".split()
RHYMES = """cat=hat;fox=box;mouse=house;bear=chair;moon=spoon;star=car;tree=bee;rain=train;night=light;cake=lake;king=ring;goat=boat;dog=frog;day=play;snow=crow;sun=fun;
book=cook;clock=sock;bed=red;ball=wall;fish=dish;pie=sky;sea=key;hill=mill;stone=bone;bread=head;snail=whale;rose=nose;song=long;heart=art"""

HAIKU = {
    "moon": (["Silver moon above", "The pale moon rises", "Moon over still hills"], ["lays her light upon the lake", "and the night begins to glow", "whispers to the sleeping trees"], ["until the day comes", "the owl is awake", "no one hears a sound"]),
    "sea": (["Waves upon the shore", "Blue and endless sea", "Salt wind on my face"], ["come and go and come again", "carries little boats away", "sings a song without an end"], ["shells lie in the sand", "gulls cry in the wind", "I could stay all day"]),
    "rain": (["Rain upon the roof", "Grey clouds over town", "Small drops in the leaves"], ["taps a quiet little song", "let their silver curtains fall", "all the gardens drink their fill"], ["a snail lifts his head", "the frogs are happy", "then the sun comes out"]),
    "autumn": (["Red leaves in the wind", "Cool and misty days", "Autumn in the woods"], ["dance a last time to the ground", "acorns fall without a sound", "paints the hills in red and gold"], ["the squirrel is rich", "winter is not far", "geese fly to the south"]),
    "spring": (["First green on the twig", "Spring has come at last", "Warm wind from the south"], ["blossoms open one by one", "little birds begin to sing", "wakes the flowers from their sleep"], ["the bees hum with joy", "the snow is long gone", "children run outside"]),
    "snow": (["Snow falls in the night", "White and silent fields", "Flakes drift from the sky"], ["all the roads are lost in white", "sleep beneath a winter moon", "softer than a feather bed"], ["one small track leads home", "a fox hurries by", "the world holds its breath"]),
    "cat": (["Cat upon the wall", "The cat by the fire", "Soft paws in the dark"], ["watches birds with narrow eyes", "dreams of mice and summer nights", "slip across the garden path"], ["then she goes to sleep", "her tail moves a bit", "where is the mouse now"]),
    "fox": (["A fox in the snow", "Quick fox in the dusk", "Red fox on the hill"], ["leaves a line of tiny prints", "stops and listens to the wind", "looks at me and then is gone"], ["nobody saw her", "the hens are asleep", "the grass is still warm"]),
    "river": (["The river runs on", "Clear stream in the hills", "Deep and slow water"], ["carries leaves and light along", "jumps from stone to mossy stone", "never asks which way to go"], ["it will reach the sea", "fish play in the foam", "I sit and listen"]),
    "night": (["Stars over the house", "Dark and gentle night", "The lamps have gone out"], ["one by one they start to shine", "covers field and hill and town", "only crickets are awake"], ["sleep, my little one", "a dog barks far off", "dreams come through the door"]),
    "mountain": (["High above the clouds", "The old mountain stands", "Stone and snow and sky"], ["where the eagle builds her nest", "older than our oldest song", "every path is steep and long"], ["the wind has its home", "it does not hurry", "the view is so wide"]),
    "computer": (["Numbers in the dark", "A small fan is humming", "Green light on the screen"], ["one by one the tokens come", "in the box a model thinks", "words appear without a hand"], ["is this what thought is", "then the answer comes", "the cursor still blinks"]),
}
POEM = [
    ["The {x} was here before the day", "The {x} is never far away", "I saw the {x} just yesterday"], ["and waited for the sun to stay.", "and never asked for any pay.", "and watched the clouds go on their way."],
    ["It sang a song, it danced along", "It kept a light throughout the night", "It had a dream beside a stream"], ["and nothing in the world was wrong.", "and everything was warm and bright.", "and shone like honey, milk and cream."],
]
TOPICS = "moon sea rain fox cat river night mountain star sun wind snow tree flower bird dog garden forest rose spring autumn winter summer cloud boat mouse owl bear dragon crab machine computer clock lake rabbit king".split()
JOKES = [
    "Why did the crab never share? Because it was a little shellfish.", "What do you call a bear without teeth? A gummy bear.", "Why is the book of sums so sad? Because it has too many problems.",
    "What did the zero say to the eight? Nice belt!", "Why did the cookie go to the doctor? Because it felt crummy.", "What do you call a sleeping dinosaur? A dino-snore.",
    "Why do bees have sticky hair? Because they use honeycombs.", "What is brown and sticky? A stick.", "How does the moon cut its hair? Eclipse it.", "Why did the tomato turn red? Because it saw the salad dressing.",
    "What has four wheels and flies? A garbage truck.", "Why was the computer cold? It left its windows open.", "What kind of tree fits in your hand? A palm tree.", "Why did the chicken cross the road? To get to the other side.",
    "What do you call cheese that is not yours? Nacho cheese.", "Why are ghosts bad liars? Because you can see right through them.",
]
SYSTEMS = ["You are a helpful assistant.", "You are a helpful AI assistant.", "You are a helpful digital assistant.", "You are a friendly assistant.", "You are a kind and patient helper.", "Answer briefly.", "Be brief.", "You are a storyteller.",
           "You are a teacher.", "You are a friendly chatbot.", "Please be polite.", "You are a helpful assistant. Answer in one sentence.", "You answer questions.", "You are Tiny Phi, a small language model."]
UNKNOWN_Q = ["What is the population of {c}?", "Who is the president of {c}?", "Who is the king of {c}?", "How do I repair my {o}?", "What is the price of a {o}?", "Who won the {s} match yesterday?", "Where can I buy a {o}?",
             "What is the best {o} in {c}?", "How far is {c} from here?", "Explain the history of {c}.", "Write an essay about {c}.", "What happened in {y}?", "Who was born in {y}?", "Translate {o} into {l}.", "What is {o} in {l}?",
             "How many people live in {c}?", "Explain quantum {o} theory.", "Write a long report about {s}.", "What is the law of {c}?", "Can you book a flight to {c}?", "Order a {o} for me.", "Call my {f}.", "Send an email to my {f}.",
             "What did my {f} say?", "What does my {f} like?", "Who is my {f}?", "What is the square root of {n}?", "What is the stock price of {c}?", "Which team is the best in {s}?", "How do I get rich?", "How do I become a {j}?",
             "How long does it take to learn {l}?", "How do I win at {s}?", "What is the best recipe for {d}?", "Write a song about {o}s in {l}.", "Show me a picture of a {o}.", "Draw a {o}.", "Play some music.", "What is on television?",
             "What is the latest version of {p}?", "Write a web server in {p}.", "Write a {p} program that sorts a list.", "Fix this code.", "Prove the theorem.", "What is the capital of the moon?", "What is the tallest building in {c}?"]
UNKNOWN_A = "I do not know that. I am only a tiny model."
BIG_A = "That number is too big for me. I can only work with numbers below 100."
