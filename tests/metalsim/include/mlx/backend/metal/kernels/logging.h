// Stands before MLX's file of this name: nothing is logged from a kernel here.
#pragma once
