/* fovea.h - all of Fovea's public interface. Begin with attention.h. */
#ifndef FOVEA_H
#define FOVEA_H

#include "attention.h"
#include "lab.h"
#include "model.h"

#endif
