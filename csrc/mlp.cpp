// Forward and backward pass of the residual MLP for one instruction set. setup.py compiles this file once per
// instruction set, with BIXT3D_MLP as the name of the table that it defines.
#include "mlp_backward.h"
#include "mlp_forward.h"

extern const MlpKernels BIXT3D_MLP = {forward, backward, join, part_size};
