"""A process that streams replies into a store until it is killed.

Before each checkpoint it announces what it is about to write, after it that it is written: whoever reads the
announcements knows what must be in the file.
"""

import sys

from qwen_mlx.chat.history import History


def main(path: str, pause: bool = False) -> None:
    history = History(path)
    conversation = history.new_conversation("written until killed")
    while True:
        history.add_message(conversation.id, "user", "question")
        reply = history.add_message(conversation.id, "assistant", status="streaming")
        text = ""
        for number in range(20):
            text += f"word{number} "
            history.update_message(reply.id, content=text, reasoning="because " * number)
            print("checkpoint", reply.id, len(text), flush=True)
            if pause:
                sys.stdin.readline()  # alive, with a reply half written, and in no transaction
        history.finish_message(reply.id, content=text, status="done")
        print("finished", reply.id, len(text), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], pause="pause" in sys.argv[2:])
