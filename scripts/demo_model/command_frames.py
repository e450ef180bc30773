"""The sentences around a wish, as people ask for a command: {w} a wish, {ws} in the third person, {wing} in -ing."""

from __future__ import annotations

from .tasks import phrases

FRAMES_EN = phrases(
    """
    How do I {w}? | How can I {w}? | how to {w} | How to {w}? | Which command do I use to {w}? |
    Which command should I use to {w}? | What command do I need to {w}? | Which command lets me {w}? |
    What is the command to {w}? | I want to {w}. | I want to {w} | I would like to {w}. | I'd like to {w} |
    I need to {w}. | What should I run to {w}? | What do I type to {w}? | What do I run to {w}? |
    What must I type to {w}? | Command to {w}? | command to {w} | Is there a command to {w}? |
    Tell me the command to {w}. | Tell me how to {w}. | Show me how to {w}. | Can I {w}? | Can you {w}? |
    Is it possible to {w}? | How would I {w}? | how do you {w} | What is the way to {w}? |
    What's the command to {w}? | Explain how to {w}. | Help me {w}. | Please help me {w}. | How should I {w}? |
    With which command can I {w}? | Which qwen-mlx command can {w}? | Can qwen-mlx {w}? | How does one {w}? |
    I am trying to {w}. | Which command would I use to {w}? | Name the command to {w}. | {w} | {w} | {w} | {w}? |
    {w}! | What command can {w}? | What command {w}? | Which command is for this: {w}? | What if I want to {w}? |
    Where can I {w}? | How could I {w} with qwen-mlx? | How do I {w} with qwen-mlx? | How do I {w} here? |
    Do you know how to {w}? | What do I use to {w}? | What should I use to {w}? | What can I use to {w}? |
    qwen-mlx: how do I {w}? | Let me {w}. | my goal is to {w} | {w}, how? | {w}: which command? |
    {w} - what do I type? | {w}, how do I do that? | {w}, what is the command? | To {w}, what do I run? |
    To {w}, which command do I need? | If I want to {w}, what do I type? | I need to {w}, how? |
    I want to {w}, which command is it? | how would one {w} | I want to {w} but do not know how. |
    I just want to {w} | I need a command to {w} | Looking for a way to {w} | is there any way to {w}? |
    Could you tell me how to {w}? | Could I {w} somehow? | How am I supposed to {w}? | What's the best way to {w}? |
    What's the easiest way to {w}? | quickest way to {w}? | what to type to {w} | I forgot how to {w} |
    How was it again: how do I {w}? | I'm looking for the command to {w}. | steps to {w} | which command to {w} |
    what command to {w}? | Where do I start if I want to {w}? | how can i {w} from the terminal? |
    What do I enter to {w}? | What do I have to run to {w}? | What has to be run to {w}? | May I {w}? |
    We want to {w}. | How can we {w}? | My boss wants me to {w}. | I've been asked to {w}. |
    Does qwen-mlx let me {w}? | can it {w}? | Is there something to {w}? | Anything to {w}? | I have to {w}. |
    I must {w} | Could you {w} for me? | Please {w}. | Can this tool {w}? | Does it {w}? | How does qwen-mlx {w}? |
    tell me which command to use to {w} | go and {w} | How do I best {w}? | how do i {w} pls | hey how do I {w} |
    Time to {w}. | Now I want to {w}. | Next I want to {w}. | Which command for this: I want to {w}? |
    Which one do I use to {w}? | Which of the commands will {w}?
    """
)
FRAMES_ZH = phrases(
    """
    怎么{w}？ | 如何{w}？ | 我想{w}。 | 我想{w} | 我要{w} | {w}用什么命令？ | 用什么命令{w}？ | 哪个命令可以{w}？ |
    怎样{w}？ | {w}的命令是什么？ | 请问怎么{w}？ | 怎么才能{w}？ | 告诉我怎么{w}。 | 我该怎么{w}？ |
    用qwen-mlx怎么{w}？ | 可以{w}吗？ | 能不能{w}？ | {w}要用哪个命令？ | 我需要{w}，怎么办？ | 想{w}该用什么命令？ |
    帮我{w} | {w} | {w} | 什么命令能{w}？ | 如何用qwen-mlx{w}？ | {w}怎么做？ | {w}用哪个命令？ | {w}，怎么弄？ |
    想{w} | 我想要{w} | 请告诉我怎么{w} | 有没有命令可以{w}？ | {w}该怎么做？ | {w}要怎么办？ | 该输入什么来{w}？ |
    要{w}，运行什么？ | {w}需要运行什么命令？ | 请帮我{w} | 怎么用命令行{w}？ | 哪条命令用来{w}？ | {w}的方法 |
    {w}？ | 我打算{w}，用什么？ | 在这里怎么{w}？ | 怎么在终端{w}？ | 能{w}吗？ | {w}应该用什么？ | 想知道怎么{w} |
    现在要{w} | 输入什么可以{w}？ | 我得{w} | 麻烦问一下，怎么{w}？ | {w}是哪个命令？
    """
)
DOES_EN = phrases(
    """
    Which command {ws}? | Which command {ws}? | Which command {ws}? | What command {ws}? | which command {ws} |
    What {ws}? | Tell me which command {ws}. | Is there a command that {ws}? | Which of the commands {ws}? |
    what {ws} | What is the command that {ws}? | Which part of qwen-mlx {ws}? | Name the command that {ws}. |
    The command that {ws}? | Do you know what {ws}? | Which qwen-mlx command {ws}? | I need the command that {ws}. |
    Which subcommand {ws}? | I am looking for a command which {ws}. | What is it that {ws}? | Which one {ws}? |
    what's the command that {ws} | Is there anything that {ws}? | Which tool {ws}? | Do you have a command that {ws}?
    """
)
DOING_EN = phrases(
    """
    Which command is for {wing}? | What is the command for {wing}? | Command for {wing}? | I need help with {wing}. |
    How does {wing} work? | What do I use for {wing}? | Tell me about {wing}. | {wing} | {wing} | {wing}? |
    How about {wing}? | What do I need for {wing}? | Explain {wing}. | I am thinking of {wing}. |
    Any command for {wing}? | for {wing}? | What do I run for {wing}? | What is used for {wing}? | {wing}, how? |
    {wing}: which command? | How do I start {wing}? | Which command does {wing}? | Which command helps with {wing}? |
    I have trouble with {wing}. | help with {wing} | What do I type for {wing}? | Is {wing} possible? |
    Is there a command for {wing}? | {wing} - which command is it? | I am interested in {wing}. |
    Does qwen-mlx support {wing}? | which command do i need for {wing} | I'd like {wing}.
    """
)
NOUN_EN = phrases(
    """
    {n} | {n} | {n} | {n}? | {n}? | {n} command | {n} command? | command for {n} | Which command is for {n}? |
    What is the command for {n}? | What do I use for {n}? | What do I need for {n}? | How do I do {n}? |
    help with {n} | {n}, how? | {n}: which command? | Which command do I need for {n}? | What do I run for {n}? |
    I need help with {n}. | Which command has to do with {n}? | for {n}? | What do I type for {n}? |
    I have a question about {n}. | {n} please | Tell me the command for {n}. | Is there a command for {n}? |
    I am interested in {n}. | Which command handles {n}? | what about {n} | Which command does {n}? | qwen-mlx {n} |
    {n} in qwen-mlx | {n} with qwen-mlx? | I want {n} | I need {n} | Where do I find {n}? | Does qwen-mlx do {n}? |
    What is there for {n}? | Can it do {n}?
    """
)
AFTER_TROUBLE_EN = phrases(
    """
    What do I run? | Which command helps? | What can I do? | What now? | How? | What should I do? | Which command? |
    What do I type? | How do I do that? | Which command do I need? | Can you help? | What is the command? |
    Any idea? | Is there a command for that? | Which command is it? | Help! | What would you do? |
    Is there a command? | Please help. | Which command do I use? | How can I do this? | What must I run?
    """
)
AFTER_TROUBLE_ZH = phrases(
    """
    怎么办？ | 用什么命令？ | 该用哪个命令？ | 怎么做？ | 我该运行什么？ | 有什么命令吗？ | 请问用哪个命令？ |
    怎么弄？ | 该怎么办？ | 用哪个命令好？
    """
)
KEYWORD_EN = phrases(
    """
    {k}? | {k} | {k} command? | the {k} command | How do I {k}? | how to {k} | What is the {k} command? |
    Can I {k} here? | I want to {k} | Which command is for {k}? | How does {k} work? | {k} something | {k} please |
    which command can {k}? | {k} a model | {k} model | {k} models | what do i type to {k}
    """
)
OPENINGS_EN = phrases(
    """
    Hi, | Hello, | Hey, | Please tell me: | Quick question: | One more thing: | I am new here. | Sorry, | Ok, |
    I have a problem. | Another question. | Good morning! | Hi! | I use a Mac. | I just installed this. |
    I have a model. | Well, | So, | Excuse me, | Hello! | I'm a beginner. | Hi there, | Stupid question: | ok so |
    I am on a MacBook. | I am using Linux. | Hey! | Help! | Thanks. | Please, | Now | First: | And | Question: | hmm,
    """
)
OPENINGS_ZH = phrases(
    """
    你好， | 请问 | 请问， | 我是新手。 | 那个， | 再问一下， | 嗨， | 您好， | 另外， | 麻烦问一下，
    """
)
PLACES_EN = phrases(
    """
    on my Mac | on my laptop | on this machine | from the command line | with qwen-mlx | in the terminal | now |
    locally | on this computer | again | first | here | in qwen-mlx | quickly | with one command | without the app |
    on Linux | on my MacBook | from the shell | myself | using qwen-mlx | the easy way | today
    """
)
AND_EN = phrases(
    """
    And to {w}? | And how do I {w}? | and if I want to {w}? | What about if I want to {w}? | Then how do I {w}? |
    And how can I {w}? | ok, and to {w}? | And {w}? | now I want to {w} | and which command do I use to {w}?
    """
)
AND_ZH = phrases(
    """
    那怎么{w}呢？ | 那{w}呢？ | 如果想{w}呢？ | 然后怎么{w}？ | 还有，怎么{w}？
    """
)
MEANING_EN = phrases(
    """
    What does {c} do? | What does `{c}` do? | What is {c}? | What is `{c}` for? | Explain {c}. | what is {c} for |
    Explain the command {c}. | What happens if I run {c}? | Tell me about {c}.
    """
)
MEANING_ZH = phrases(
    """
    {c}是做什么的？ | `{c}`有什么用？ | {c}命令是什么？ | 解释{c} | {c}是干什么的？
    """
)
