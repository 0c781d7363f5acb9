"""Language models: Hope, its relatives and the transformer to compare them with; generation; memories on disk."""

from nestlearn.memory.state import cut_state, repeat_state, select_state, state_bytes
from nestlearn.models.block import PARTS, Block, Part, Stage
from nestlearn.models.feed_forward import SwiGLU
from nestlearn.models.generation import generate, read, stream
from nestlearn.models.language_model import LanguageModel
from nestlearn.models.masks import pad
from nestlearn.models.named import MODELS, gated_delta_net, hope, hope_attention, match_parameters, titans, transformer
from nestlearn.models.reading import Reading, memories, movement, observe
from nestlearn.models.stacking import add_continuum
from nestlearn.models.stacking_folder import load_stacked
from nestlearn.models.stacking_memory import Continuum
from nestlearn.models.state_files import StateFileError, load_state, save_state
from nestlearn.models.tokenizer import ByteTokenizer, FileTokenizer, TextStream, Tokenizer, load_tokenizer

__all__ = [
    "MODELS",
    "PARTS",
    "Block",
    "ByteTokenizer",
    "Continuum",
    "FileTokenizer",
    "LanguageModel",
    "Part",
    "Reading",
    "Stage",
    "StateFileError",
    "SwiGLU",
    "TextStream",
    "Tokenizer",
    "add_continuum",
    "cut_state",
    "gated_delta_net",
    "generate",
    "hope",
    "hope_attention",
    "load_stacked",
    "load_state",
    "load_tokenizer",
    "match_parameters",
    "memories",
    "movement",
    "observe",
    "pad",
    "read",
    "repeat_state",
    "save_state",
    "select_state",
    "state_bytes",
    "stream",
    "titans",
    "transformer",
]
