// Stands before MLX's file of this name, whose bfloat overloads are part of sim/math.h and sim/simdgroup.h.
#pragma once
