"""Questions about the terminal app and about qwen-mlx itself, in English, with their answers."""

from __future__ import annotations

from .tasks import phrases

Fact = tuple[str, str, list[str], str]  # topic, thinking, questions, answer

FACTS_EN: list[Fact] = [
    (
        "what",
        "What qwen-mlx is.",
        phrases(
            """
        What is qwen-mlx? | What does qwen-mlx do? | What is this app? | What is this program? |
        Tell me about qwen-mlx. | Describe qwen-mlx. | What is this project? | What is qwen-mlx for? |
        what's qwen-mlx | Explain qwen-mlx | What kind of app is this? | What can qwen-mlx do? | What am I using? |
        Why should I use qwen-mlx?
        """
        ),
        "qwen-mlx runs, quantizes, fine-tunes and serves Qwen models with MLX on your own computer.",
    ),
    (
        "licence",
        "The licence.",
        phrases(
            """
        What is the licence? | What is the license? | Which licence has qwen-mlx? | Is qwen-mlx free? |
        Is it open source? | Is this open source? | What license does qwen-mlx use? | May I use it at work? |
        Can I use it commercially? | Is it free? | Under which license is it? | Can I change the code? | license? |
        Is qwen-mlx open source?
        """
        ),
        "qwen-mlx is free under the MIT licence.",
    ),
    (
        "stop",
        "Stopping an answer.",
        phrases(
            """
        How do I stop an answer? | How do I stop you? | How can I stop generation? | How do I cancel? |
        Stop the answer | How do I interrupt the model? | How to stop generating? | How do I make it stop? |
        Which key stops the answer? | How do I abort? | Can I stop the model? | How do I cancel a reply? |
        What key stops generation? | how to interrupt | it does not stop talking, what do I press?
        """
        ),
        "Press Esc to stop an answer.",
    ),
    (
        "fold",
        "Folding the thinking.",
        phrases(
            """
        How do I fold the thinking? | How do I hide the thinking? | How do I see the thinking? |
        How can I show your thoughts? | How do I unfold the thinking? | Hide thinking | Show the thinking |
        How do I collapse the thinking block? | How do I expand the thoughts? | Where can I see what you think? |
        How to open the thinking block? | Can I see your thoughts? | Which key folds thinking? |
        How do I read the reasoning? | Show me your reasoning
        """
        ),
        "Ctrl+O folds or unfolds the thinking.",
    ),
    (
        "history",
        "The chat history.",
        phrases(
            """
        Where is my history? | Where are my chats? | Where is the history? | How do I find old chats? |
        How do I search my chats? | Are my chats saved? | Where are my old conversations? |
        How do I open a previous chat? | Can I see past chats? | How do I go back to an old conversation? |
        Where are chats stored? | Is the conversation saved? | Do you save chats? | Find a former chat |
        show my chat history | How do I continue yesterday's chat?
        """
        ),
        "Your chats are saved on this computer; press Ctrl+S to see and search them.",
    ),
    (
        "new_chat",
        "A new chat.",
        phrases(
            """
        How do I start a new chat? | How do I open a new conversation? | New chat | How do I begin again? |
        How do I clear the chat? | How do I start over? | Start a new conversation | Which key starts a new chat? |
        How to reset the conversation? | How do I make a fresh chat? | Can I start over? | clear the conversation
        """
        ),
        "Press Ctrl+N for a new chat.",
    ),
    (
        "choose_model",
        "Choosing a model.",
        phrases(
            """
        How do I change the model? | How do I switch models? | How do I choose another model in the app? |
        Which key shows the models? | How do I select a model? | Switch the model | Can I change the model? |
        How do I pick a different model? | Where do I choose the model? | use a different model in this chat |
        Change model
        """
        ),
        "Press Ctrl+L to choose a model.",
    ),
    (
        "quit",
        "Leaving the app.",
        phrases(
            """
        How do I quit? | How do I exit? | How do I close the app? | How do I leave? | Quit | Exit |
        Which key quits? | How can I close qwen-mlx? | How to exit the app? | How do I get out of here? |
        How do I end the program? | close the app | how to leave the app
        """
        ),
        "Press Ctrl+Q to quit.",
    ),
    (
        "newline",
        "A new line.",
        phrases(
            """
        How do I write a new line? | How do I insert a newline? | How do I write several lines? |
        How do I make a line break? | Which key is newline? | How to type multiple lines? |
        Can I write more than one line? | How do I add a line break to my message?
        """
        ),
        "Shift+Enter or Ctrl+J starts a new line; Enter sends.",
    ),
    (
        "send",
        "Sending.",
        phrases(
            """
        How do I send a message? | Which key sends? | How do I submit? | How to send my question? |
        What do I press to send?
        """
        ),
        "Press Enter to send.",
    ),
    (
        "keys",
        "The keys.",
        phrases(
            """
        Which keys are there? | What are the shortcuts? | Show the keyboard shortcuts. | Where is the help? |
        How do I see all keys? | Keyboard shortcuts? | What keys can I press? | How do I get help? |
        List the keys | Is there a list of shortcuts? | What are the hotkeys? |
        How do I open the command palette? | Where is the menu?
        """
        ),
        "F1 shows all keys; Ctrl+P opens the command palette.",
    ),
    (
        "settings",
        "The parameters.",
        phrases(
            """
        How do I change the temperature? | Where are the settings? | How do I set the system prompt? |
        How do I change top-p? | How do I change the parameters? | Change the temperature |
        Where can I set the temperature? | How do I change sampling settings? | How do I edit the settings? |
        make answers less random
        """
        ),
        "F2 opens the parameters of the chat.",
    ),
    (
        "edit",
        "Editing a message.",
        phrases(
            """
        How do I edit my message? | Can I change my last message? | How do I correct my question? |
        How do I edit the last message? | Change my last question | How to fix a typo in my message?
        """
        ),
        "Press Esc twice to edit your last message.",
    ),
    (
        "regenerate",
        "Another answer.",
        phrases(
            """
        How do I get another answer? | How do I regenerate? | How do I retry? | Can you answer again? |
        How do I repeat the answer? | Regenerate the answer | Try again | Give me a different answer
        """
        ),
        "Select the answer with Ctrl+Up and press R to get another one.",
    ),
    (
        "copy",
        "Copying.",
        phrases(
            """
        How do I copy an answer? | How do I copy code? | How do I copy text? | Copy the answer |
        Can I copy the code block? | How to copy a message?
        """
        ),
        "Select the message with Ctrl+Up; C copies it, Y copies its code.",
    ),
    (
        "hardware",
        "The hardware.",
        phrases(
            """
        Do I need a GPU? | What hardware do I need? | Does it run on Linux? | Does it run on a Mac? |
        Which computers are supported? | Does it run on Windows? | Do I need a Mac? | Does it work on a CPU? |
        What are the requirements? | Does it need Apple silicon? | Can I run it on Intel? | Where does it run?
        """
        ),
        "It is fastest on a Mac with Apple silicon; Linux works too, on the CPU.",
    ),
    (
        "private",
        "Privacy.",
        phrases(
            """
        Is my data private? | Do you send my data anywhere? | Does it need the internet? | Does it work offline? |
        Is it local? | Are my chats private? | Does anything leave my computer? | Do you run locally? |
        Is my conversation sent to a server? | Can I use it offline? | Do you upload my data?
        """
        ),
        "Everything runs on your computer; nothing is sent anywhere.",
    ),
    (
        "mlx",
        "What MLX is.",
        phrases(
            """
        What is MLX? | Tell me about MLX. | What does MLX mean? | Explain MLX | Who made MLX?
        """
        ),
        "MLX is Apple's array library for machine learning; qwen-mlx is built on it.",
    ),
    (
        "qwen",
        "What Qwen is.",
        phrases(
            """
        What is Qwen? | What are Qwen models? | Who makes Qwen? | Tell me about Qwen. | Explain Qwen |
        What does Qwen mean? | Where does Qwen come from?
        """
        ),
        "Qwen is a family of open language models by Alibaba Cloud; qwen-mlx runs them.",
    ),
    (
        "which_model",
        "Choosing a model.",
        phrases(
            """
        Which model should I use? | Which model is best? | What model do you recommend? |
        Which Qwen should I download? | Which model fits my computer? | What is a good model? | Recommend a model |
        Which model should I start with? | What is the best Qwen for me?
        """
        ),
        "Start with `qwen-mlx pull qwen3:0.6b`; with 16 GB or more try qwen3:4b or qwen3:8b.",
    ),
    (
        "no_model",
        "A real model.",
        phrases(
            """
        Why are you so bad? | How do I get a better model? | Why can't you answer this? |
        Why is the model so stupid? | Can I get a smarter model? | How do I get better answers? |
        How do I use a real Qwen? | I want a smarter model | Is there a better model?
        """
        ),
        "I am only the demo. Pull a real Qwen: `qwen-mlx pull qwen3:0.6b`",
    ),
    (
        "install",
        "Installing.",
        phrases(
            """
        How do I install qwen-mlx? | How do I install this? | How do I set up qwen-mlx? | How to install it? |
        Installation? | How do I install the app?
        """
        ),
        "In the source folder, `scripts/chat` sets everything up and starts the app.",
    ),
    (
        "options",
        "Help of a command.",
        phrases(
            """
        How do I see the options of a command? | What options does a command have? |
        Where is the command line help? | List all commands | Which commands are there? |
        What commands does qwen-mlx have? | Show all commands | What are the commands? |
        How do I see all commands? | command line help?
        """
        ),
        "`qwen-mlx --help` lists the commands; `qwen-mlx COMMAND --help` shows the options of one.",
    ),
    (
        "what_quant",
        "What quantization is.",
        phrases(
            """
        What is quantization? | What does quantization mean? | What is a 4-bit model? | Why quantize? |
        Explain quantization | What is a quantized model?
        """
        ),
        "Quantization stores weights with fewer bits, so a model needs less memory. Use `qwen-mlx quantize`.",
    ),
    (
        "what_lora",
        "What LoRA is.",
        phrases(
            """
        What is LoRA? | Explain LoRA | What does LoRA mean? | What is a LoRA adapter? | What is fine-tuning? |
        What is an adapter?
        """
        ),
        "LoRA trains a small adapter instead of the whole model. Use `qwen-mlx train`.",
    ),
]
