"""What a recipe optimises: heads of Gaussians that render under a drive."""
