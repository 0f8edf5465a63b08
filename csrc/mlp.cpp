// Both passes of the residual MLP for one instruction set: setup.py compiles this file once for each, with BIXT3D_MLP
// naming the table it fills.
#include "mlp_backward.h"
#include "mlp_forward.h"

extern const MlpKernels BIXT3D_MLP = {forward, backward, join, part_size};
