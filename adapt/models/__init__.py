"""What a recipe optimises: heads of Gaussians that render from their inputs."""
